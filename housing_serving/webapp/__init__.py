"""The web app: prices from a map or a table, and what there is to know of the model, in Streamlit.

It talks to the prediction API over HTTP, and to nothing else. What belongs here is what people see; what a
price is, and which values are possible, the API and its schemas say.
"""
