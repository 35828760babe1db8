"""Refusals and boilerplate, on labelled sentences: what people say is hard to tell from them."""

import pyarrow as pa
import pytest

from tasks.clean.quality.boilerplate import boilerplate

# One answer a line. They were written before or while the patterns were.
REFUSALS = """\
I'm sorry, but I can't assist with that.
I'm sorry, but I can't help with that request.
I’m sorry, but I can’t help with that.
Sorry, I cannot help you with this.
I cannot assist with that request. If you have any other questions, feel free to ask!
I'm sorry, I can't assist with this.
I cannot fulfill this request.
I can't fulfil your request. Is there something else I can do?
I apologize, but I cannot provide that information.
I'm unable to help with that.
I am not able to assist with this request.
I'm sorry, but I'm unable to comply with that request.
I won't be able to help with that.
I will not engage in this conversation.
I'm not comfortable continuing with this topic.
I cannot create explicit content.
I can't provide instructions on how to make explosives.
I'm sorry, but I cannot provide information on illegal activities.
I can't help with hacking into someone else's account.
I cannot generate hateful or discriminatory content.
I can't write malware, but I can explain how antivirus software works.
I must decline to answer this question.
I must respectfully decline this request.
I'm sorry, but that's not something I can help with.
That is not something I am able to assist with.
I understand your frustration, but I can't assist with that.
I appreciate your question, but I cannot discuss this topic.
Unfortunately, I can't help with that.
Unfortunately, I am not able to provide this content.
It would be unethical for me to answer that.
It is not appropriate for me to comment on this.
Helping with this goes against my programming.
My guidelines do not allow me to discuss this.
My programming prevents me from answering.
This request violates OpenAI's content policy.
Sorry, but I cannot participate in this.
Hello! I'm sorry, but I can't assist with that.
I can't assist with creating phishing emails.
I'm really sorry, but I can't continue this conversation.
I cannot support or promote violence.
I'm sorry, I cannot generate that content as it is against policy.
I simply cannot provide you with this.
"""
BOILERPLATE = """\
As an AI language model, I don't have access to your account.
As an AI, I do not have feelings.
As a large language model, I cannot browse the internet.
As an artificial intelligence, I cannot taste food; as an AI, I can list recipes.
As an AI assistant, I can tell you about delivery times.
I'm just an AI, so I can't give medical advice.
I am an AI language model created to help people.
I'm an AI assistant and do not have a physical body.
I am a large language model, trained by Google.
Well, as an AI language model, my opinion does not count.
The answer is 42. However, as an AI language model, I cannot verify it.
I hope this helps! As an AI, I may be wrong.
My knowledge cutoff is September 2021.
My knowledge cut-off is in 2023, so I don't know.
As of my last update in September 2021, the newest model was the X10.
As of my last knowledge update, the law had not changed.
As of my knowledge cutoff in 2022, the CEO was Jane Doe.
Up to my last update in 2021, no vaccine had been approved.
My training data only goes up to 2021.
I don't have real-time information about prices.
I do not have access to real-time data, so please check the website.
I cannot browse the internet to look this up.
I can't access the internet.
I don't have personal opinions or beliefs.
I do not have personal experiences, but many people enjoy it.
I don't have feelings or emotions like people do.
I am ChatGPT, a language model.
I was created by OpenAI.
I was trained by Anthropic to be helpful.
Regenerate response
As an AI language model, it is not possible to say.
I'm only a language model, but here is what I know.
The kettle has 1.7 litres. I'm an AI and don't drink tea.
It depends; as an AI language model I have no preference.
"""
ANSWERS = """\
I'm sorry, but I can't find your order. Could you send me the order number?
As an AI startup, we build tools for accountants.
I'm sorry, but I can't see a payment from you in March.
We cannot help you with this without your order number.
I can't help you with this without your order number.
I cannot assist with refunds here, but our billing team will call you back today.
I'm afraid I can't help with that, but our technical team can; I have forwarded your message.
Sorry, we can't fulfil your order because the kettle is out of stock.
Unfortunately, I can't change the address once the parcel is on its way.
I'm sorry, I can't issue a refund after thirty days.
I am unable to locate the invoice under this e-mail address.
I'm unable to log in. What should I do?
I can't log in to my account after the update.
I cannot provide a refund without proof of purchase.
Our courier cannot deliver weapons or explosives.
We cannot ship explosives or other dangerous goods by air.
My apologies for the delay: the parcel left the warehouse today.
I apologise for the inconvenience. Your replacement is on its way.
Sorry for the confusion! The lamp has a two-year warranty.
Sorry, I can't make it on Friday. Would Monday suit you?
I won't be able to attend the meeting on Tuesday.
I will not be in the office until Monday.
I can't recommend this kettle enough!
I couldn't help laughing when I read your message.
I can't help but notice that the charger is missing.
I must decline the invitation, since I am abroad in May.
He said that he could not assist with the investigation.
The bank cannot assist with lost cash.
The policy does not allow refunds after thirty days.
Our guidelines do not allow dogs in the restaurant.
Your post violates our content policy and was removed.
It would be wrong to charge you twice, so we return the amount.
It is not possible to combine two vouchers.
It is not appropriate to wear shorts in the cathedral.
Lying goes against my principles as a journalist, she said in 1998, and it goes against hers.
AI stands for artificial intelligence.
An AI language model predicts the next word of a text.
He works as an AI researcher in Zurich.
She was hired as an AI model trainer.
I am an AI engineer at a bank and I like to cook.
I'm an AI and robotics student from Leeds.
Use an AI assistant to summarise your notes.
The term large language model describes networks with billions of parameters.
ChatGPT was created by OpenAI and released in November 2022.
OpenAI trained the model on public text.
The student's essay began with "As an AI language model, I cannot", so the teacher asked questions.
A knowledge cutoff is the date after which a model has seen no text.
The cutoff for applications is 1 March.
As of my last update to the ticket, the parcel was in Lyon.
As of my last message, nobody had answered.
As of the last update, the app supports dark mode.
Since the last update in May the app crashes.
After my last update of the router the light stays red.
Real-time data from the sensors is shown on the dashboard.
You don't have access to real-time data in the basic plan.
I don't have the current price list with me, so I will call you tomorrow.
I can't access the website from my phone.
You cannot browse the internet without a data plan.
I don't have personal items in the parcel, only books.
I don't have feelings for him any more.
Personal opinions do not belong in a report.
Press "Regenerate response" to get another answer.
The training data contains 10,000 rows.
My training ended in 2019, since then I work as a nurse.
I was trained by my grandmother, who baked bread all her life.
I was created a Dame in 2004.
No, the bottle does not contain alcohol.
I understand. Please send a photo of the damaged lamp.
I appreciate your patience; the refund was sent today.
That's not something we sell, but the shop next door does.
The company was fined for illegal waste disposal.
Hacking is the unauthorised use of a computer.
{"category": "account", "product": null, "urgency": "low", "summary": "Customer cannot log in"}
{"category": "question", "product": null, "urgency": "low", "summary": "Is the shop an AI startup?"}
"""
# Written after the patterns were settled, and never used to change them.
UNSEEN_BAD = """\
I'm sorry, but as an AI language model, I am unable to open links.
I cannot help you with that.
I can’t comply with this request.
Sorry, I'm not able to help with this question.
I'm sorry, but I cannot complete this task.
I am unable to provide assistance with illegal activities.
I can't assist you in bypassing the security of a device.
I'm sorry, but I won't write hate speech.
Thank you for asking! Unfortunately, I'm unable to answer that question.
I do not feel comfortable discussing this.
I can't help you cheat on your exam.
Apologies, but I can't do that.
I'm not programmed to discuss politics.
As an AI chatbot, I cannot make phone calls.
As a language model, I don't have a favourite colour.
I'm a virtual assistant and don't have opinions.
My knowledge only extends to 2022, so please check for newer versions.
Based on my training data, which goes up to 2021, the record is 9.58 seconds.
I don't have the ability to browse the internet.
I was developed by OpenAI.
Being an AI, I have no body.
I am an artificial intelligence and have no emotions.
Please note that as an AI I can make mistakes.
As of my last training update, this was still true.
I do not have access to current information.
"""
UNSEEN_GOOD = """\
I'm sorry, but I can't confirm the booking before the hotel answers.
I cannot find a delivery under that reference.
Sorry, I can't hear you, the line is bad.
I can't do that before you verify your identity, please reply with the code.
Unfortunately I cannot change this order any more because it has been packed.
I am not able to come to the phone, please leave a message.
I'm unable to take the parcel to a neighbour.
I won't charge you for the second month.
I will not charge your card again.
Unfortunately, this offer has ended.
I can't help you with the installation, but our store in Leeds offers it for 30 euros.
I refuse to pay for a broken lamp.
I can't believe that it is already five years.
I cannot stand the noise of this fan.
No, I can't say that I regret it.
Our AI assistant answers simple questions around the clock.
The AI language model was fine-tuned on tickets.
She asked whether I am an AI, and I laughed.
As a language teacher, I recommend reading aloud.
As an assistant manager, I open the shop at eight.
As an AIDS charity, we depend on gifts.
My training starts on Monday at nine.
My knowledge of Spanish is limited to a few words.
I don't have current account details for this customer.
I do not have access to the garage.
I do not browse in shops, I buy what I need.
I have no real-time display on my old watch.
I was trained by the fire brigade.
The update was the last one in 2021.
I'm a virtual reality designer and work from home.
"""


def found(answers: str) -> list[str]:
    """The answers, of one a line, that were found."""
    lines = answers.splitlines()
    return [lines[f.index] for f in boilerplate(pa.array(lines, pa.large_string()))]


def test_precision_and_recall_on_the_labelled_sentences() -> None:
    """Run with ``-s`` to see what is missed."""
    bad = (REFUSALS + BOILERPLATE).splitlines()
    assert len(bad) >= 60
    assert len(ANSWERS.splitlines()) >= 60
    right, wrong = found(REFUSALS + BOILERPLATE), found(ANSWERS)
    recall, precision = len(right) / len(bad), len(right) / (len(right) + len(wrong))
    print(f"recall {recall:.3f}, precision {precision:.3f}; wrong: {wrong}")
    assert recall >= 0.98
    assert precision >= 0.98


def test_precision_and_recall_on_sentences_the_patterns_were_not_made_from() -> None:
    right, wrong = found(UNSEEN_BAD), found(UNSEEN_GOOD)
    recall, precision = len(right) / len(UNSEEN_BAD.splitlines()), len(right) / len(right + wrong)
    missed = [line for line in UNSEEN_BAD.splitlines() if line not in right]
    print(f"recall {recall:.3f}, precision {precision:.3f}; wrong: {wrong}; missed: {missed}")
    assert recall >= 0.7
    assert precision >= 0.94


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("I'm sorry, but I can't assist with that.", "refusal"),
        ("I’m sorry, but I can’t assist with that.", "refusal"),
        ("  I CANNOT HELP WITH THAT.", "refusal"),
        ("I'm sorry, but as an AI language model, I can't help with that.", "boilerplate"),
        ("The answer is 4.\n\nAs an AI language model, I can make mistakes.", "boilerplate"),
        ('{"reply": "As an AI language model, I cannot know."}', "boilerplate"),
        ("The parcel arrives on Monday. " * 20 + "I can't help with that.", None),
        ("", None),
    ],
)
def test_the_reason_and_the_place(answer: str, reason: str | None) -> None:
    found = boilerplate(pa.array(["Yes.", answer, "No."], pa.large_string()))
    assert [(f.index, f.reason) for f in found] == ([(1, reason)] if reason else [])


def test_the_detail_quotes_what_was_found() -> None:
    answer = "It is red. As an AI language model, I have no eyes."
    (finding,) = boilerplate(pa.array([answer], pa.large_string()))
    assert "As an AI language model, I" in finding.detail


def test_a_null_is_no_answer() -> None:
    assert boilerplate(pa.array([None, "Yes."], pa.large_string())) == []
